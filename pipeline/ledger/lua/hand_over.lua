-- ARGV: id, fed, alpha. Moves a held item on to the encode queue. Returns its new fed number, or "" when it is stale.
local id = ARGV[1]
if not stands(id, ARGV[2]) or redis.call('HEXISTS', items, id) == 0 then return '' end
redis.call('HSET', alpha, id, ARGV[3])
leave_held(id)
redis.call('SADD', queues, 'encode')
redis.call('ZADD', waiting('encode'), num(now), id)
moved()
return num(now)
