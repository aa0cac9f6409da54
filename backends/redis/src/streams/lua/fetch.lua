-- Takes messages for a member of a group, with a lease each: first what comes again, then what is new.
local PARKED = 10000
local S, G, want, lease, token = argument(), argument(), tonumber(argument()), tonumber(argument()), argument()
local B = S .. '/' .. G
local out = {}
move_due()
keep_clock()

local function look(fields)
  local key, expires
  for i = 1, #fields, 2 do
    if fields[i] == 'key' then
      key = fields[i + 1]
    elseif fields[i] == 'expires' then
      expires = tonumber(fields[i + 1])
    end
  end
  return key, expires ~= nil and expires <= NOW
end

-- What is handed out and has no key: noted in one go.
local plain, entries = {}, {}

local function hand(id, key, fields)
  if not key then
    plain[#plain + 1] = id
    entries[#entries + 1] = { id, 1, fields }
    out[#out + 1] = entries[#entries]
    return
  end
  local tries = tonumber(redis.call('HGET', B .. ':tries', id) or '0')
  redis.call('HSET', B .. ':held', id, token)
  redis.call('ZADD', B .. ':leases', whole(NOW + lease), id)
  redis.call('HSET', B .. ':lanes', key, id)
  redis.call('HSET', B .. ':keys', id, key)
  out[#out + 1] = { id, tries + 1, fields }
end

local function note_plain()
  if #plain == 0 then
    return
  end
  local tries = redis.call('HMGET', B .. ':tries', unpack(plain))
  local held, leases, till = {}, {}, whole(NOW + lease)
  for i, id in ipairs(plain) do
    entries[i][2] = tonumber(tries[i] or '0') + 1
    held[#held + 1], held[#held + 2] = id, token
    leases[#leases + 1], leases[#leases + 2] = till, id
  end
  redis.call('HSET', B .. ':held', unpack(held))
  redis.call('ZADD', B .. ':leases', unpack(leases))
end

local due = redis.call('ZRANGEBYSCORE', B .. ':leases', '-inf', NOW, 'LIMIT', 0, want + 32)
for _, id in ipairs(due) do
  if #out >= want then
    break
  end
  -- It is still in the hands of somebody whose lease is over: that was an attempt.
  if redis.call('HDEL', B .. ':held', id) == 1 then
    redis.call('HINCRBY', B .. ':tries', id, 1)
  end
  local entry = redis.call('XCLAIM', S, G, MEMBER, 0, id)[1]
  if not entry then
    done(S, G, id)
  else
    local key, expired = look(entry[2])
    if expired then
      done(S, G, id)
    else
      hand(id, key, entry[2])
    end
  end
end

local parked = tonumber(redis.call('GET', B .. ':parked') or '0')
local rounds, drained = 0, false
while #out < want and parked < PARKED and not drained do
  if rounds >= 16 then
    break
  end
  rounds = rounds + 1
  local count = want - #out
  local read = redis.call('XREADGROUP', 'GROUP', G, MEMBER, 'COUNT', count, 'STREAMS', S, '>')
  local fresh = read and read[1][2] or {}
  drained = #fresh < count
  for _, entry in ipairs(fresh) do
    local id, fields = entry[1], entry[2]
    local key, expired = look(fields)
    if expired then
      done(S, G, id)
    elseif key and redis.call('HEXISTS', B .. ':lanes', key) == 1 then
      -- The one before it is not done.
      redis.call('HSET', B .. ':keys', id, key)
      redis.call('RPUSH', B .. ':lane:' .. key, id)
      parked = redis.call('INCR', B .. ':parked')
    else
      hand(id, key, fields)
    end
  end
end

note_plain()

-- How long there is nothing more to come, in milliseconds; -1 if that is not known. Who got less than it wanted waits from
-- now on.
local wait = -1
if #out < want then
  local function sooner(zset)
    local first = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')[2]
    if first then
      local left = math.max(math.ceil(tonumber(first) - NOW), 0)
      if wait < 0 or left < wait then
        wait = left
      end
    end
  end
  sooner(B .. ':leases')
  sooner(P .. 'delayed')
  if not drained and parked < PARKED then
    wait = 0
  end
  redis.call('SET', S .. ':wait', '1', 'PX', 10000)
end
-- Packed: a reply for each field costs more on both sides.
return { cmsgpack.pack(out), wait }
