-- ARGV: most to cancel. Finishes unfinished items as failed/cancelled. Returns how many are left.
if redis.call('HGET', base, 'state') == 'finished' then return 0 end
redis.call('HSET', base, 'state', 'listed', 'cancelled', '1')
local found = redis.call('HSCAN', items, 0, 'COUNT', ARGV[1])[2]
for i = 1, #found, 2 do
  local key = cjson.decode(found[i + 1])[1]
  finish(found[i], 'failed', cjson.encode({ key = key, outcome = 'failed', code = 'cancelled', reason = 'The run was cancelled.' }), tried(found[i]))
end
return redis.call('HLEN', items)
