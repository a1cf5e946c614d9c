-- ARGV: triples of id, fed, alpha. Moves held items on to the encode queue.
-- Returns their new fed number, then 1 for each that moved and 0 for each that was stale.
redis.call('SADD', queues, 'encode')
local answer = { num(now) }
for i = 1, #ARGV, 3 do
  local id = ARGV[i]
  if stands(id, ARGV[i + 1]) and redis.call('HEXISTS', items, id) == 1 then
    redis.call('HSET', alpha, id, ARGV[i + 2])
    leave_held(id)
    redis.call('ZADD', waiting('encode'), num(now), id)
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
moved()
return answer
