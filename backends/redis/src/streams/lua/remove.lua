-- Removes messages of a queue by their ids; answers how many were there, or -1 without the queue.
local S = P .. 'queue:' .. argument()
if redis.call('EXISTS', S) == 0 then
  return -1
end
local removed = 0
for _ = 1, tonumber(argument()) do
  local id = argument()
  if redis.call('XDEL', S, id) == 1 then
    removed = removed + 1
    done(S, 'workers', id)
  end
end
return removed
