-- ARGV: item ids. Returns for each the source hash that has claimed its output, or "".
local found = {}
for i = 1, #ARGV do found[i] = redis.call('HGET', base .. ':claims', ARGV[i]) or '' end
return found
