-- ARGV: id, fed, kind (tries or deaths), limit, delay in microseconds, row for when the limit is reached,
-- "drop" when the alpha is of no use. Returns 'again', 'failed' or 'stale'.
local id, fed, kind = ARGV[1], ARGV[2], ARGV[3]
if not stands(id, fed) then return 'stale' end
if ARGV[7] == 'drop' then redis.call('HDEL', alpha, id) end
local count = redis.call('HINCRBY', base .. ':' .. kind, id, 1)
if count >= tonumber(ARGV[4]) then
  finish(id, 'failed', ARGV[6], tried(id))
  return 'failed'
end
redis.call('HINCRBY', base, 'retried', 1)
to_todo(id, now + tonumber(ARGV[5]) * math.pow(2, count - 1))
return 'again'
