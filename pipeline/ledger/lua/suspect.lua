-- ARGV: id, fed, 1 when it was alone in the engine else 0, limit, row for when the limit is reached.
-- It was in an engine whose process left by its own act: a suspect from now on, who runs alone; alone, it is counted.
-- Returns 'suspect', 'failed' or 'stale'.
local id = ARGV[1]
if not stands(id, ARGV[2]) then return 'stale' end
if redis.call('HINCRBY', suspects, id, ARGV[3]) >= tonumber(ARGV[4]) then
  finish(id, 'failed', ARGV[5], tried(id))
  return 'failed'
end
to_todo(id, now)
return 'suspect'
