-- What has to be done now and then for one group: its place is kept, what other clients of it have left behind is
-- taken over, and its topic is trimmed. Answers where to go on, and behind which entry nothing is done yet.
local S, G, ttl, stale, from = argument(), argument(), tonumber(argument()), tonumber(argument()), argument()
local limits = read_limits()
local B = S .. '/' .. G
if ttl > 0 then
  redis.call('ZADD', P .. 'temporary', whole(NOW + ttl), S .. '/' .. G)
end
local page = redis.call('XPENDING', S, G, 'IDLE', stale, from, '+', 100)
local resume = '-'
for _, pending in ipairs(page) do
  local id = pending[1]
  if pending[2] ~= MEMBER and not redis.call('ZSCORE', B .. ':leases', id) and redis.call('HEXISTS', B .. ':keys', id) == 0 then
    redis.call('HSET', B .. ':tries', id, pending[4])
    redis.call('ZADD', B .. ':leases', rank(id), id)
    ring(S)
  end
  resume = '(' .. id
end
if #page < 100 then
  resume = '-'
end
if is_topic(S) then
  trim(S, limits.keep, limits.keep_ms, limits.max_age)
elseif limits.max_age > 0 then
  redis.call('XTRIM', S, 'MINID', '=', whole(NOW - limits.max_age) .. '-0')
end
return { resume, finished(S, G) or '0-0' }
