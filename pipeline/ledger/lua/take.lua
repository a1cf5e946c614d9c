-- ARGV: queue, fed, ids. Takes those whose message this is. Returns for each its record, alpha and whether it is a
-- suspect, or false, false, 0.
local taken = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local score = redis.call('ZSCORE', waiting(ARGV[1]), id)
  local record = score and num(tonumber(score)) == ARGV[2] and redis.call('HGET', items, id)
  if record then
    redis.call('ZREM', waiting(ARGV[1]), id)
    redis.call('ZADD', held, num(now), id)
    redis.call('HSET', fedof, id, ARGV[2])
    taken[#taken + 1] = record
    taken[#taken + 1] = redis.call('HGET', alpha, id)
    taken[#taken + 1] = redis.call('HEXISTS', suspects, id)
  else
    taken[#taken + 1] = false
    taken[#taken + 1] = false
    taken[#taken + 1] = 0
  end
end
return taken
