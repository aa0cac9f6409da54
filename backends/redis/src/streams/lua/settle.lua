-- Settles deliveries, each only by the one who holds it.
local limits = read_limits()
local outcomes = {}
-- What is acknowledged one after the other in one group is done in one go.
local acked, tokens, places, acked_in = {}, {}, {}, nil
local function flush()
  if not acked_in then
    return
  end
  local S, G = acked_in.S, acked_in.G
  local held = redis.call('HMGET', S .. '/' .. G .. ':held', unpack(acked))
  local mine = {}
  for i, id in ipairs(acked) do
    if held[i] == tokens[i] then
      mine[#mine + 1] = id
      outcomes[places[i]] = 'OK'
    else
      outcomes[places[i]] = 'CONFLICT'
    end
  end
  acked, tokens, places, acked_in = {}, {}, {}, nil
  if #mine > 0 then
    all_done(S, G, mine)
  end
end
local function settle(S, G, id, token, action, number)
  local message, delay
  if action == 'f' then
    message, delay = read_message()
  end
  local B = S .. '/' .. G
  local function give_back(counts, wait)
    if counts then
      redis.call('HINCRBY', B .. ':tries', id, 1)
    end
    redis.call('HDEL', B .. ':held', id)
    redis.call('ZADD', B .. ':leases', wait > 0 and whole(NOW + wait) or rank(id), id)
    ring(S)
  end
  if redis.call('HGET', B .. ':held', id) ~= token then
    return 'CONFLICT'
  elseif action == 'n' then
    give_back(true, number)
  elseif action == 'b' then
    give_back(false, 0)
  elseif action == 'x' then
    redis.call('ZADD', B .. ':leases', 'XX', whole(NOW + number), id)
  else
    local outcome = accept(message, delay, nil)
    if outcome == 'NOQUEUE' or outcome == 'NOROUTE' then
      give_back(true, 0)
      return outcome
    end
    done(S, G, id)
  end
  return 'OK'
end
for i = 1, tonumber(argument()) do
  local S, G, id, token, action, number = argument(), argument(), argument(), argument(), argument(), tonumber(argument())
  if acked_in and not (action == 'a' and acked_in.S == S and acked_in.G == G and not acked_in[id]) then
    flush()
  end
  if action == 'a' then
    acked_in = acked_in or { S = S, G = G }
    acked_in[id] = true
    acked[#acked + 1], tokens[#acked + 1], places[#acked + 1] = id, token, i
  else
    outcomes[i] = settle(S, G, id, token, action, number)
  end
end
flush()
keep_clock()
return outcomes
