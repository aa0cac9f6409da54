-- How much waits for a group and is in nobody's hands; nothing where that cannot be known. Changes nothing.
local S, G = argument(), argument()
local function by_name(list)
  local facts = {}
  for i = 1, #list, 2 do
    facts[list[i]] = list[i + 1]
  end
  return facts
end

local groups = redis.pcall('XINFO', 'GROUPS', S)
if groups.err then
  if string.find(groups.err, 'no such key', 1, true) then
    return false
  end
  error(groups.err)
end
for _, group in ipairs(groups) do
  local facts = by_name(group)
  if facts['name'] == G then
    -- In somebody's hands, or put off. What waits behind one of its key has no lease.
    local elsewhere = redis.call('ZCOUNT', S .. '/' .. G .. ':leases', '(' .. whole(NOW), '+inf')
    if not is_topic(S) then
      -- What is done is not there any more.
      return math.max(redis.call('XLEN', S) - elsewhere, 0)
    end
    -- Redis itself does not know it of a group that began in the middle, until that has caught up.
    local fresh = facts['lag']
    if not fresh and facts['last-delivered-id'] == by_name(redis.call('XINFO', 'STREAM', S))['last-generated-id'] then
      fresh = 0
    end
    if not fresh then
      return false
    end
    return math.max(fresh + facts['pending'] - elsewhere, 0)
  end
end
return false
