-- Moves due items from todo to waiting. ARGV: most to move, most to move to engines, queue of the matte stage's prefix.
-- An item whose alpha is there goes to the encode queue. Returns fed number, then triples id, record, queue.
local most, engines = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = { num(now) }

local function move(from, id, record, queue)
  redis.call('ZREM', from, id)
  redis.call('SADD', queues, queue)
  redis.call('ZADD', waiting(queue), num(now), id)
  answer[#answer + 1] = id
  answer[#answer + 1] = record
  answer[#answer + 1] = queue
end

local function due(from, count)
  if count <= 0 then return {} end
  return redis.call('ZRANGEBYSCORE', from, '-inf', num(now), 'LIMIT', 0, count)
end

for _, id in ipairs(due(todo_encode, most)) do
  local record = redis.call('HGET', items, id)
  if not record then
    redis.call('ZREM', todo_encode, id)
  elseif redis.call('HEXISTS', alpha, id) == 0 then
    redis.call('ZREM', todo_encode, id)
    redis.call('ZADD', todo, num(now), id)
  else
    move(todo_encode, id, record, 'encode')
  end
end
for _, id in ipairs(due(todo, math.min(most - (#answer - 1) / 3, engines))) do
  local record = redis.call('HGET', items, id)
  if record then move(todo, id, record, ARGV[3] .. cjson.decode(record)[4]) else redis.call('ZREM', todo, id) end
end
return answer
