-- Reserving, completing, extending and releasing the right to do something once.
local P, action, K = ARGV[1], ARGV[2], ARGV[3]
-- What is known of a claim whose lease is over stays a while: its owner may still complete it, if nobody else has begun.
local GRACE = 3600000
local moment = redis.call('TIME')
local NOW = moment[1] * 1000 + math.floor(moment[2] / 1000)
local function whole(number)
  return string.format('%.0f', number)
end

local known = redis.call('HMGET', K, 'generation', 'done', 'until', 'fingerprint')
local generation, done, until_ms, fingerprint = known[1], known[2] == '1', tonumber(known[3] or '0'), known[4]

if action == 'claim' then
  local lease, own = tonumber(ARGV[4]), ARGV[5]
  if generation then
    if own ~= '' and fingerprint ~= '' and own ~= fingerprint then
      return { 'MISMATCH', '' }
    end
    if done then
      return { 'DONE', redis.call('HGET', K, 'result') }
    end
    if until_ms > NOW then
      return { 'BUSY', whole(until_ms - NOW) }
    end
  end
  local next = whole(redis.call('INCR', P .. 'inbox:generation'))
  redis.call('DEL', K)
  redis.call('HSET', K, 'generation', next, 'done', '0', 'until', whole(NOW + lease), 'fingerprint', own)
  redis.call('PEXPIRE', K, whole(lease + GRACE))
  return { 'GRANTED', next }
end

if generation ~= ARGV[4] then
  return { 'LOST', '' }
end
if action == 'complete' then
  if not done then
    redis.call('HSET', K, 'done', '1', 'result', ARGV[5])
    redis.call('PEXPIRE', K, ARGV[6])
  end
elseif done then
  return { 'LOST', '' }
elseif action == 'extend' then
  redis.call('HSET', K, 'until', whole(NOW + tonumber(ARGV[5])))
  redis.call('PEXPIRE', K, whole(tonumber(ARGV[5]) + GRACE))
else
  redis.call('DEL', K)
end
return { 'OK', '' }
