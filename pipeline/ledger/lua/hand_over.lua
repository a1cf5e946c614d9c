-- ARGV: triples of id, fed, alpha. Moves held items on to the encode queue.
-- Returns their new fed number, then 1 for each that moved and 0 for each that was stale.
local answer, any = { num(now) }, false
for i = 1, #ARGV, 3 do
  local id = ARGV[i]
  if stands(id, ARGV[i + 1]) and redis.call('HEXISTS', items, id) == 1 then
    redis.call('HSET', alpha, id, ARGV[i + 2])
    leave_held(id)
    redis.call('ZADD', waiting('encode'), num(now), id)
    answer[#answer + 1] = 1
    any = true
  else
    answer[#answer + 1] = 0
  end
end
-- Nothing is written where nothing stands, least of all a run that a lost Redis no longer knows.
if any then
  redis.call('SADD', queues, 'encode')
  moved()
end
return answer
