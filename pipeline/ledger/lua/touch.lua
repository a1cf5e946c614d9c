-- ARGV: pairs of id, fed. Says that they are still worked on.
for i = 1, #ARGV, 2 do
  if stands(ARGV[i], ARGV[i + 1]) then redis.call('ZADD', held, 'XX', num(now), ARGV[i]) end
end
return 0
