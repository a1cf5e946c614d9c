-- ARGV: 1 when the listing moves, 0 when it waits for memory. Says that whoever lists is alive.
if redis.call('HGET', base, 'state') ~= 'listing' then return 0 end
redis.call('HSET', base, 'listing_at', num(now))
if ARGV[1] == '1' then moved() end
return 1
