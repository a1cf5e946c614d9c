-- Moves due items from todo to waiting. ARGV: most to move, most to move to engines, queue of the matte stage's prefix.
-- An item whose alpha is there goes to the encode queue. Returns fed number, then triples id, record, queue.
local most, engines = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = { num(now) }
for _, id in ipairs(redis.call('ZRANGEBYSCORE', todo, '-inf', num(now), 'LIMIT', 0, most)) do
  local record = redis.call('HGET', items, id)
  if not record then
    redis.call('ZREM', todo, id)
  else
    local queue = nil
    if redis.call('HEXISTS', alpha, id) == 1 then
      queue = 'encode'
    elseif engines > 0 then
      engines = engines - 1
      queue = ARGV[3] .. cjson.decode(record)[4]
    end
    if queue then
      redis.call('ZREM', todo, id)
      redis.call('SADD', queues, queue)
      redis.call('ZADD', waiting(queue), num(now), id)
      answer[#answer + 1] = id
      answer[#answer + 1] = record
      answer[#answer + 1] = queue
    end
  end
end
return answer
