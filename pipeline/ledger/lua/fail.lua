-- ARGV: id, fed, row. A failure counts only from the copy whose feeding still stands.
if not stands(ARGV[1], ARGV[2]) then return 0 end
return finish(ARGV[1], 'failed', ARGV[3], tried(ARGV[1]) + 1)
