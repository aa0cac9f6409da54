-- Publishes messages in order. One that finds no room stops those behind it.
local limits = read_limits()
move_due()
local outcomes = {}
local stopped = false
for i = 1, tonumber(argument()) do
  local message, delay = read_message()
  if stopped then
    outcomes[i] = { 'FULL', '' }
  else
    local outcome, id = accept(message, delay, limits)
    stopped = outcome == 'FULL'
    outcomes[i] = { outcome, id }
  end
end
keep_clock()
return outcomes
