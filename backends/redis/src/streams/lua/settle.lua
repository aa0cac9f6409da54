-- Settles deliveries, each only by the one who holds it.
local limits = read_limits()
local outcomes = {}
-- What was acknowledged one after the other in one group is done in one go.
local acked, acked_in = {}, nil
local function flush()
  if #acked > 0 then
    all_done(acked_in.S, acked_in.G, acked)
    acked, acked_in = {}, nil
  end
end
for i = 1, tonumber(argument()) do
  local S, G, id, token, action, number = argument(), argument(), argument(), argument(), argument(), tonumber(argument())
  if acked_in and not (action == 'a' and acked_in.S == S and acked_in.G == G and not acked_in[id]) then
    flush()
  end
  local message, delay
  if action == 'f' then
    message, delay = read_message()
  end
  local B = S .. '/' .. G
  local outcome = 'OK'
  local function give_back(counts, wait)
    if counts then
      redis.call('HINCRBY', B .. ':tries', id, 1)
    end
    redis.call('HDEL', B .. ':held', id)
    redis.call('ZADD', B .. ':leases', wait > 0 and whole(NOW + wait) or rank(id), id)
    ring(S)
  end
  if redis.call('HGET', B .. ':held', id) ~= token then
    outcome = 'CONFLICT'
  elseif action == 'a' then
    acked_in = acked_in or { S = S, G = G }
    acked_in[id] = true
    acked[#acked + 1] = id
  elseif action == 'n' then
    give_back(true, number)
  elseif action == 'b' then
    give_back(false, 0)
  elseif action == 'x' then
    redis.call('ZADD', B .. ':leases', 'XX', whole(NOW + number), id)
  else
    outcome = accept(message, delay, nil)
    if outcome == 'NOQUEUE' or outcome == 'NOROUTE' then
      give_back(true, 0)
    else
      done(S, G, id)
      outcome = 'OK'
    end
  end
  outcomes[i] = outcome
end
flush()
keep_clock()
return outcomes
