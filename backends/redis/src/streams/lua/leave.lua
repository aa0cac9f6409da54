-- Removes places: one that is named, or those whose subscriber has not been heard of for too long.
local S, G = argument(), argument()
if S ~= '' then
  drop_place(S, G)
  return 1
end
local stale = redis.call('ZRANGEBYSCORE', P .. 'temporary', '-inf', NOW, 'LIMIT', 0, 20)
for _, place in ipairs(stale) do
  local stream, group = string.match(place, '^(.*)/(.-)$')
  drop_place(stream, group)
end
return #stale
