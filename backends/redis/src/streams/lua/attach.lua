-- Makes the place of a group where it is not there yet. `from` is the entry behind which it begins, or `$`.
local kind, name, G, from, ttl = argument(), argument(), argument(), argument(), tonumber(argument())
-- The token of a fetch whose answer its consumer never got: what it took goes back, uncounted.
local abandoned = argument()
move_due()

-- How many entries there ever were, told to a group that begins behind the last of them: else Redis does not know how many
-- there are behind it. Before Redis 7 nobody counts.
local function ever(S, id)
  local facts = id == '$' and redis.pcall('XINFO', 'STREAM', S)
  if facts and not facts.err then
    for i = 1, #facts, 2 do
      if facts[i] == 'entries-added' then
        return 'ENTRIESREAD', facts[i + 1]
      end
    end
  end
end

local function make(S, id)
  local made = redis.pcall('XGROUP', 'CREATE', S, G, id, 'MKSTREAM', ever(S, id))
  if type(made) == 'table' and made.err then
    if string.find(made.err, 'BUSYGROUP', 1, true) then
      return false
    end
    error(made.err)
  end
  forget(S, G)
  return true
end

local S
if kind == 'q' then
  S = P .. 'queue:' .. name
  make(S, '0')
  redis.call('SADD', P .. 'queues', name)
elseif kind == 't' then
  S = P .. 'topic:' .. name
  make(S, from)
  redis.call('SADD', P .. 'topics', name)
  redis.call('SADD', P .. 'groups:' .. name, G)
else
  local binding = name .. ':' .. G
  S = P .. 'wild:' .. binding
  local new = make(S, '0')
  redis.call('SADD', P .. 'wild', binding)
  if new and from ~= '$' and redis.call('XLEN', S) == 0 then
    -- What its topics keep, in the order in which it was published.
    local pattern, kept = split(name), {}
    for _, topic in ipairs(redis.call('SMEMBERS', P .. 'topics')) do
      if matches(pattern, split(topic)) then
        for _, entry in ipairs(redis.call('XRANGE', P .. 'topic:' .. topic, '(' .. from, '+')) do
          kept[#kept + 1] = { entry[1], topic, entry[2] }
        end
      end
    end
    table.sort(kept, function(a, b)
      return before(a[1], b[1])
    end)
    for _, entry in ipairs(kept) do
      local fields = entry[3]
      fields[#fields + 1] = 'topic'
      fields[#fields + 1] = entry[2]
      append(S, entry[1], fields)
    end
  end
end
if abandoned ~= '' then
  local B = S .. '/' .. G
  local held = redis.call('HGETALL', B .. ':held')
  for i = 1, #held, 2 do
    if held[i + 1] == abandoned then
      redis.call('HDEL', B .. ':held', held[i])
      redis.call('ZADD', B .. ':leases', rank(held[i]), held[i])
    end
  end
  ring(S)
end
if ttl > 0 then
  redis.call('ZADD', P .. 'temporary', whole(NOW + ttl), S .. '/' .. G)
end
keep_clock()
return S
