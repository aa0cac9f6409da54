-- What is kept for all processes: an entry is a hash of its value and its tags. Each tag has an index of the keys that have
-- it, by the time at which they run out, and all keys have one by name: removing costs by what is removed.
local P, action = ARGV[1], ARGV[2]
local ENTRY, TAG, NAMES = P .. 'cache:entry:', P .. 'cache:tag:', P .. 'cache:names'
-- Entries that one step removes at most: Redis does nothing else meanwhile.
local BATCH = 200
local moment = redis.call('TIME')
local NOW = moment[1] * 1000 + math.floor(moment[2] / 1000)
local function whole(number)
  return string.format('%.0f', number)
end

-- Removes an entry with its places in the indexes.
local function forget(key)
  local tags = redis.call('HGET', ENTRY .. key, 'tags')
  if tags then
    for _, tag in ipairs(cmsgpack.unpack(tags)) do
      redis.call('ZREM', TAG .. tag, key)
    end
  end
  redis.call('ZREM', NAMES, key)
  return redis.call('DEL', ENTRY .. key)
end

-- An index lives as long as what lives longest in it.
local function last(index, ttl)
  if redis.call('PTTL', index) < ttl then
    redis.call('PEXPIRE', index, whole(ttl))
  end
end

if action == 'get' then
  local value = redis.call('HGET', ENTRY .. ARGV[3], 'value')
  return value and { value } or {}
end

if action == 'put' then
  local key, ttl = ARGV[3], tonumber(ARGV[5])
  forget(key)
  local tags = {}
  for place = 6, #ARGV do
    local index = TAG .. ARGV[place]
    tags[#tags + 1] = ARGV[place]
    redis.call('ZREMRANGEBYSCORE', index, '-inf', whole(NOW))
    redis.call('ZADD', index, whole(NOW + ttl), key)
    last(index, ttl)
  end
  redis.call('HSET', ENTRY .. key, 'value', ARGV[4], 'tags', cmsgpack.pack(tags))
  redis.call('PEXPIRE', ENTRY .. key, whole(ttl))
  redis.call('ZADD', NAMES, 0, key)
  last(NAMES, ttl)
  -- Names of what has run out, or was evicted, leave bit by bit: more with each put than come.
  for _, name in ipairs(redis.call('ZRANDMEMBER', NAMES, 3)) do
    if redis.call('EXISTS', ENTRY .. name) == 0 then
      redis.call('ZREM', NAMES, name)
    end
  end
  return {}
end

-- The rest removes: how many there were, and whether there may be more.
local word, removed, keys = ARGV[3], 0, {}
if action == 'key' then
  return { forget(word), 0 }
elseif action == 'tag' then
  -- What has run out, and was put anew without the tag, has it no more.
  redis.call('ZREMRANGEBYSCORE', TAG .. word, '-inf', whole(NOW))
  keys = redis.call('ZRANGE', TAG .. word, 0, BATCH - 1)
else
  for _, name in ipairs(redis.call('ZRANGEBYLEX', NAMES, '[' .. word, '+', 'LIMIT', 0, BATCH)) do
    if string.sub(name, 1, #word) ~= word then
      break
    end
    keys[#keys + 1] = name
  end
end
for _, key in ipairs(keys) do
  removed = removed + forget(key)
  if action == 'tag' then
    redis.call('ZREM', TAG .. word, key)
  end
end
return { removed, #keys == BATCH and 1 or 0 }
