-- What the scripts share. ARGV[1] is the prefix of every key.
local P = ARGV[1]
local MEMBER = 'trunkline'

local moment = redis.call('TIME')
local NOW = moment[1] * 1000 + math.floor(moment[2] / 1000)

local function whole(number)
  return string.format('%.0f', number)
end

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(a, b)
  local am, as = parts(a)
  local bm, bs = parts(b)
  return am < bm or (am == bm and as < bs)
end

-- Where an entry stands among those that are due: in the order in which they were stored.
local function rank(id)
  local ms, seq = parts(id)
  return string.format('%.4f', math.min(ms + math.min(seq, 4095) / 4096, NOW))
end

local function is_topic(S)
  return string.sub(S, 1, #P + 6) == P .. 'topic:'
end

-- Wakes those who found nothing in a stream; once in a script, as nobody waits anew before its end.
local rung = {}
local function ring(S)
  if rung[S] then
    return
  end
  rung[S] = true
  if redis.call('DEL', S .. ':wait') == 1 then
    redis.call('PUBLISH', S .. ':bell', '')
  end
end

-- One clock for all streams, so that entries of several can be put in order by their ids.
local clock_ms, clock_seq, clock_moved
local function next_id()
  if not clock_ms then
    local last = redis.call('GET', P .. 'clock')
    if last then
      clock_ms, clock_seq = parts(last)
    else
      clock_ms, clock_seq = 0, 0
    end
  end
  if clock_ms < NOW then
    clock_ms, clock_seq = NOW, 0
  elseif clock_seq >= 4194303 then
    clock_ms, clock_seq = clock_ms + 1, 0
  else
    clock_seq = clock_seq + 1
  end
  clock_moved = true
  return whole(clock_ms) .. '-' .. whole(clock_seq)
end

local function keep_clock()
  if clock_moved then
    redis.call('SET', P .. 'clock', whole(clock_ms) .. '-' .. whole(clock_seq))
  end
end

-- Stores an entry under the next id, or behind what other clients have stored meanwhile.
local function append(S, id, fields)
  local stored = redis.pcall('XADD', S, id, unpack(fields))
  if type(stored) == 'table' and stored.err then
    if not string.find(stored.err, 'equal or smaller', 1, true) then
      error(stored.err)
    end
    stored = redis.call('XADD', S, '*', unpack(fields))
  end
  ring(S)
  return stored
end

local function split(text)
  local out = {}
  for part in string.gmatch(text, '[^.]+') do
    out[#out + 1] = part
  end
  return out
end

-- `*` is one segment, `#` any number of them. At a mismatch the last `#` takes one more: never exponential.
local function matches(pattern, topic)
  local at, seen, hash, taken = 1, 1, nil, nil
  while seen <= #topic do
    local segment = pattern[at]
    if segment == '#' then
      hash, taken = at, seen
      at = at + 1
    elseif segment ~= nil and (segment == '*' or segment == topic[seen]) then
      at, seen = at + 1, seen + 1
    elseif hash then
      taken = taken + 1
      at, seen = hash + 1, taken
    else
      return false
    end
  end
  while at <= #pattern do
    if pattern[at] ~= '#' then
      return false
    end
    at = at + 1
  end
  return true
end

-- The streams of groups with a pattern under which a topic falls.
local function bound(name)
  local streams = {}
  local topic = split(name)
  for _, binding in ipairs(redis.call('SMEMBERS', P .. 'wild')) do
    local pattern = string.match(binding, '^(.-):')
    if matches(split(pattern), topic) then
      streams[#streams + 1] = P .. 'wild:' .. binding
    end
  end
  return streams
end

-- The last entry of a stream that every group has done, or this one, and with it all before; nil if there is none.
local function finished(S, only)
  local floor
  local groups = redis.pcall('XINFO', 'GROUPS', S)
  if groups.err then
    return nil
  end
  for _, group in ipairs(groups) do
    local facts = {}
    for i = 1, #group, 2 do
      facts[group[i]] = group[i + 1]
    end
    local done = facts['last-delivered-id']
    if only and facts['name'] ~= only then
      done = nil
    elseif facts['pending'] > 0 then
      local oldest = redis.call('XPENDING', S, facts['name'])[2]
      local ms, seq = parts(oldest)
      if seq > 0 then
        done = whole(ms) .. '-' .. whole(seq - 1)
      else
        done = whole(ms - 1) .. '-18446744073709551615'
      end
    end
    if done and (not floor or before(done, floor)) then
      floor = done
    end
  end
  return floor
end

local function following(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  if seq == '18446744073709551615' then
    return whole(tonumber(ms) + 1) .. '-0'
  end
  return ms .. '-' .. whole(tonumber(seq) + 1)
end

-- Removes the oldest entries of a topic: never what a group has not done, unless it is older than `max_age`.
local function trim(S, keep, keep_ms, max_age)
  if max_age > 0 then
    redis.call('XTRIM', S, 'MINID', '=', whole(NOW - max_age) .. '-0')
  end
  local floor = finished(S)
  local limit = floor and following(floor)
  local old = whole(math.max(NOW - keep_ms, 0)) .. '-0'
  if limit and before(limit, old) then
    old = limit
  end
  redis.call('XTRIM', S, 'MINID', '=', old)
  local excess = redis.call('XLEN', S) - keep
  if excess <= 0 then
    return
  end
  if not limit then
    redis.call('XTRIM', S, 'MAXLEN', '=', keep)
    return
  end
  local oldest = redis.call('XRANGE', S, '-', '(' .. limit, 'COUNT', math.min(excess, 200))
  if #oldest > 0 then
    redis.call('XTRIM', S, 'MINID', '=', following(oldest[#oldest][1]))
  end
end

-- Whether a stream can take one more. What a topic keeps for later groups makes room.
local function has_room(S, limits)
  if redis.call('XLEN', S) < limits.max then
    return true
  end
  if is_topic(S) then
    trim(S, math.max(limits.max - 1, 0), limits.keep_ms, limits.max_age)
    return redis.call('XLEN', S) < limits.max
  end
  return false
end

local function make_queue(name)
  local S = P .. 'queue:' .. name
  redis.pcall('XGROUP', 'CREATE', S, 'workers', '0', 'MKSTREAM')
  redis.call('SADD', P .. 'queues', name)
  return S
end

-- What does not change while a script runs, but by what is published here: which queues there are and how long they are, and
-- where topics go.
local queues, lengths, routes = {}, {}, {}

local function route_of(name, S)
  if not routes[name] then
    local wild = bound(name)
    local routed = #wild > 0 or redis.call('EXISTS', P .. 'groups:' .. name) == 1
    if not routed then
      -- Groups of other clients are known to the stream alone.
      local groups = redis.pcall('XINFO', 'GROUPS', S)
      routed = not groups.err and #groups > 0
    end
    routes[name] = { wild = wild, routed = routed }
  end
  return routes[name].wild, routes[name].routed
end

-- Stores a message where it belongs. Answers what became of it, and its id.
local function publish(message, limits)
  if message.kind == 'q' then
    local S = P .. 'queue:' .. message.name
    if not queues[S] then
      if redis.call('EXISTS', S) == 0 then
        if not message.create then
          return 'NOQUEUE', ''
        end
        make_queue(message.name)
      end
      queues[S] = true
    end
    if limits then
      lengths[S] = lengths[S] or redis.call('XLEN', S)
      if lengths[S] >= limits.max then
        return 'FULL', ''
      end
    end
    local stored = append(S, next_id(), message.fields)
    if lengths[S] then
      lengths[S] = lengths[S] + 1
    end
    return 'Y', stored
  end
  local S = P .. 'topic:' .. message.name
  local wild, routed = route_of(message.name, S)
  if message.mandatory and not routed then
    return 'NOROUTE', ''
  end
  if limits then
    if not has_room(S, limits) then
      return 'FULL', ''
    end
    for _, stream in ipairs(wild) do
      if not has_room(stream, limits) then
        return 'FULL', ''
      end
    end
  end
  local stored = append(S, next_id(), message.fields)
  redis.call('SADD', P .. 'topics', message.name)
  if #wild > 0 then
    local fields = {}
    for i, field in ipairs(message.fields) do
      fields[i] = field
    end
    fields[#fields + 1] = 'topic'
    fields[#fields + 1] = message.name
    for _, stream in ipairs(wild) do
      append(stream, stored, fields)
    end
  end
  if limits then
    local length = redis.call('XLEN', S)
    if length > limits.keep + 64 or moment[2] % 256 == 0 then
      trim(S, limits.keep, limits.keep_ms, limits.max_age)
    end
  end
  return (routed and 'Y' or 'N'), stored
end

-- Keeps a message for later.
local function schedule(message, delay)
  local number = string.format('%016.0f', redis.call('INCR', P .. 'delayed:last'))
  local packed = cmsgpack.pack({ message.kind, message.name, message.fields })
  redis.call('HSET', P .. 'delayed:messages', number, packed)
  redis.call('ZADD', P .. 'delayed', whole(NOW + delay), number)
  -- Whoever waits there has to learn when to look again.
  ring(P .. (message.kind == 'q' and 'queue:' or 'topic:') .. message.name)
  if message.kind == 't' then
    for _, stream in ipairs(bound(message.name)) do
      ring(stream)
    end
  end
end

-- Stores the messages whose time has come.
local function move_due()
  local due = redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', NOW, 'LIMIT', 0, 64)
  for _, number in ipairs(due) do
    local packed = redis.call('HGET', P .. 'delayed:messages', number)
    if packed then
      local message = cmsgpack.unpack(packed)
      publish({ kind = message[1], name = message[2], fields = message[3], create = true })
    end
    redis.call('ZREM', P .. 'delayed', number)
    redis.call('HDEL', P .. 'delayed:messages', number)
  end
end

-- The next of a key may come, as one of it is done.
local function free(S, B, id, key)
  redis.call('HDEL', B .. ':keys', id)
  if redis.call('HGET', B .. ':lanes', key) == id then
    local after = redis.call('LPOP', B .. ':lane:' .. key)
    if after then
      redis.call('HSET', B .. ':lanes', key, after)
      redis.call('ZADD', B .. ':leases', rank(after), after)
      redis.call('DECR', B .. ':parked')
      ring(S)
    else
      redis.call('HDEL', B .. ':lanes', key)
    end
  elseif redis.call('LREM', B .. ':lane:' .. key, 1, id) == 1 then
    redis.call('DECR', B .. ':parked')
  end
end

-- Entries are done for their group: what is known about them goes, and the next of their keys may come.
local function all_done(S, G, ids)
  local B = S .. '/' .. G
  redis.call('XACK', S, G, unpack(ids))
  redis.call('ZREM', B .. ':leases', unpack(ids))
  redis.call('HDEL', B .. ':held', unpack(ids))
  redis.call('HDEL', B .. ':tries', unpack(ids))
  local keys = redis.call('HMGET', B .. ':keys', unpack(ids))
  for i, id in ipairs(ids) do
    if keys[i] then
      free(S, B, id, keys[i])
    end
  end
  if not is_topic(S) then
    redis.call('XDEL', S, unpack(ids))
  end
end

local function done(S, G, id)
  all_done(S, G, { id })
end

-- What is known about a group beside the group itself.
local function forget(S, G)
  local B = S .. '/' .. G
  for _, key in ipairs(redis.call('HKEYS', B .. ':lanes')) do
    redis.call('DEL', B .. ':lane:' .. key)
  end
  redis.call('DEL', B .. ':leases', B .. ':held', B .. ':tries', B .. ':keys', B .. ':lanes', B .. ':parked')
end

-- Removes the place of a subscriber without a group.
local function drop_place(S, G)
  if is_topic(S) then
    redis.pcall('XGROUP', 'DESTROY', S, G)
    redis.call('SREM', P .. 'groups:' .. string.sub(S, #P + 7), G)
  else
    redis.call('DEL', S)
    redis.call('SREM', P .. 'wild', string.sub(S, #P + 6))
  end
  forget(S, G)
  redis.call('ZREM', P .. 'temporary', S .. '/' .. G)
end

local cursor = 1
local function argument()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function read_limits()
  return {
    max = tonumber(argument()),
    keep = tonumber(argument()),
    keep_ms = tonumber(argument()),
    max_age = tonumber(argument()),
  }
end

local function read_message()
  local message = { kind = argument(), name = argument(), mandatory = argument() == '1' }
  local delay = tonumber(argument())
  local count = tonumber(argument())
  -- In one call: one for each field costs more than storing the message.
  message.fields = { unpack(ARGV, cursor + 1, cursor + count) }
  cursor = cursor + count
  return message, delay
end

-- Publishes now, or keeps for later.
local function accept(message, delay, limits)
  if delay <= 0 then
    return publish(message, limits)
  end
  if message.kind == 'q' and redis.call('EXISTS', P .. 'queue:' .. message.name) == 0 then
    return 'NOQUEUE', ''
  end
  schedule(message, delay)
  return 'D', ''
end
