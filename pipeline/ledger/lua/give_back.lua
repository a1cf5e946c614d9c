-- ARGV: pairs of id, fed. Returns held items to todo without blame.
for i = 1, #ARGV, 2 do
  if stands(ARGV[i], ARGV[i + 1]) then to_todo(ARGV[i], now) end
end
return 0
