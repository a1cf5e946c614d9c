-- ARGV: id, row. A success counts from any copy.
return finish(ARGV[1], 'done', ARGV[2], tried(ARGV[1]) + 1)
