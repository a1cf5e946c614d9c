-- ARGV: id, small pictures, seconds to stay. Of an item that is not finished, or a run that is gone would have a key again.
if redis.call('HEXISTS', items, ARGV[1]) == 0 then return 0 end
redis.call('HSET', base .. ':previews', ARGV[1], ARGV[2])
redis.call('EXPIRE', base .. ':previews', ARGV[3])
return 1
