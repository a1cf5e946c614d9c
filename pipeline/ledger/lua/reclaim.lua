-- ARGV: held timeout, waiting timeout (microseconds), then pairs of queue, fed number of its oldest message
-- ("" for an empty queue). Returns how many items went back to todo.
local back = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', held, '-inf', num(now - tonumber(ARGV[1])), 'LIMIT', 0, 500)) do
  to_todo(id, now)
  back = back + 1
end
for i = 3, #ARGV, 2 do
  local before = now - tonumber(ARGV[2])
  if ARGV[i + 1] ~= '' then before = math.min(before, tonumber(ARGV[i + 1]) - 1) end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', waiting(ARGV[i]), '-inf', num(before), 'LIMIT', 0, 500)) do
    redis.call('ZREM', waiting(ARGV[i]), id)
    to_todo(id, now)
    back = back + 1
  end
end
if back > 0 then redis.call('HINCRBY', base, 'reclaimed', back) end
return back
