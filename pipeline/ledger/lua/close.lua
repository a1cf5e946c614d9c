-- KEYS[2]: the active runs. ARGV: run, seconds to stay, why the reports could not be written.
-- Finishes the run; its rows stay only with such an error, which says nothing any more of a run that is closed.
if ARGV[3] ~= '' and redis.call('HGET', base, 'state') == 'finished' then return 0 end
redis.call('HSET', base, 'state', 'finished', 'report_error', ARGV[3])
redis.call('ZREM', KEYS[2], ARGV[1])
for _, queue in ipairs(redis.call('SMEMBERS', queues)) do redis.call('UNLINK', waiting(queue)) end
redis.call('UNLINK', items, todo, todo_encode, held, queues, alpha, fedof, tries, deaths, suspects, base .. ':claims', base .. ':previews')
if ARGV[3] == '' then redis.call('UNLINK', rows) end
redis.call('EXPIRE', base, ARGV[2])
redis.call('EXPIRE', rows, ARGV[2])
return 1
