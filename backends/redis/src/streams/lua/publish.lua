-- Publishes messages. In order, one that finds no room stops those behind it; else each has its own outcome, whatever
-- becomes of the others.
local limits = read_limits()
local in_order = argument() == '1'
move_due()
local outcomes = {}
local stopped = false
for i = 1, tonumber(argument()) do
  local message, delay = read_message()
  if stopped then
    outcomes[i] = { 'FULL', '' }
  elseif in_order then
    local outcome, id = accept(message, delay, limits)
    stopped = outcome == 'FULL'
    outcomes[i] = { outcome, id }
  else
    local taken, outcome, id = pcall(accept, message, delay, limits)
    if taken then
      outcomes[i] = { outcome, id }
    else
      outcomes[i] = { 'ERR', type(outcome) == 'table' and outcome.err or tostring(outcome) }
    end
  end
end
keep_clock()
return outcomes
