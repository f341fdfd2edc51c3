-- Compute for Lua and LuaJIT: loops that a tracing compiler takes apart, with results printed.
local floor, sqrt = math.floor, math.sqrt

local function nbody(steps)
    local px, py, vx, vy, m = {0, 1, 0, -1.5}, {0, 0, 1.2, 0}, {0, 0, -0.9, 0}, {0, 1, 0, -0.8}, {1, 0.01, 0.02, 0.005}
    for _ = 1, steps do
        for i = 1, 4 do
            for j = 1, 4 do
                if i ~= j then
                    local dx, dy = px[j] - px[i], py[j] - py[i]
                    local d2 = dx * dx + dy * dy + 0.01
                    local f = 0.001 * m[j] / (d2 * sqrt(d2))
                    vx[i], vy[i] = vx[i] + dx * f, vy[i] + dy * f
                end
            end
        end
        for i = 1, 4 do
            px[i], py[i] = px[i] + vx[i] * 0.001, py[i] + vy[i] * 0.001
        end
    end
    return string.format("%.14g %.14g %.14g", px[2], py[3], vx[4])
end

local function mandelbrot(size, limit)
    local inside = 0
    for y = 0, size - 1 do
        for x = 0, size - 1 do
            local cr, ci, zr, zi, n = 2 * x / size - 1.5, 2 * y / size - 1, 0, 0, 0
            while n < limit and zr * zr + zi * zi < 4 do
                zr, zi, n = zr * zr - zi * zi + cr, 2 * zr * zi + ci, n + 1
            end
            inside = inside + n
        end
    end
    return inside
end

local function fannkuch(n)
    local p, q, s, sign, maxflips, sum = {}, {}, {}, 1, 0, 0
    for i = 1, n do p[i], q[i], s[i] = i, i, i end
    repeat
        local q0 = p[1]
        if q0 ~= 1 then
            for i = 2, n do q[i] = p[i] end
            local flips = 1
            while true do
                local qq = q[q0]
                if qq == 1 then
                    sum = sum + sign * flips
                    if flips > maxflips then maxflips = flips end
                    break
                end
                q[q0] = q0
                if q0 >= 4 then
                    local i, j = 2, q0 - 1
                    repeat q[i], q[j] = q[j], q[i]; i = i + 1; j = j - 1 until i >= j
                end
                q0 = qq
                flips = flips + 1
            end
        end
        if sign == 1 then
            p[1], p[2] = p[2], p[1]
            sign = -1
        else
            p[2], p[3] = p[3], p[2]
            sign = 1
            for i = 3, n do
                local sx = s[i]
                if sx ~= 1 then s[i] = sx - 1; break end
                if i == n then return sum .. " " .. maxflips end
                s[i] = i
                local t = p[1]
                for j = 1, i do p[j] = p[j + 1] end
                p[i + 1] = t
            end
        end
    until false
end

local function sieve(limit)
    local composite, count = {}, 0
    for i = 2, limit do
        if not composite[i] then
            count = count + 1
            for j = i * i, limit, i do composite[j] = true end
        end
    end
    return count
end

local function strings(n)
    local words, x = {}, 12345
    for i = 1, n do
        x = (x * 1103 + 12345) % 65521
        words[i] = string.format("%x-%d", x, x % 7)
    end
    table.sort(words)
    local text = table.concat(words, " ")
    local vowels = select(2, text:gsub("[ae]", ""))
    local sum = 0
    for a, b in text:gmatch("(%x+)-(%d)") do sum = (sum + tonumber(a, 16) * tonumber(b)) % 1000003 end
    return #text .. " " .. vowels .. " " .. sum
end

local function spectral(n)
    local u, v = {}, {}
    for i = 1, n do u[i] = 1 end
    local function times(x, y, transposed)
        for i = 1, n do
            local a = 0
            for j = 1, n do
                local r, c = i, j
                if transposed then r, c = j, i end
                a = a + x[j] / ((r + c - 1) * (r + c - 2) / 2 + r)
            end
            y[i] = a
        end
    end
    local t = {}
    for _ = 1, 5 do
        times(u, t, false) times(t, v, true) times(v, t, false) times(t, u, true)
    end
    local vbv, vv = 0, 0
    for i = 1, n do vbv, vv = vbv + u[i] * v[i], vv + v[i] * v[i] end
    return string.format("%.12f", sqrt(vbv / vv))
end

local Account = {}
Account.__index = Account
local function objects(n)
    local all = {}
    for i = 1, n do all[i] = setmetatable({balance = i}, Account) end
    function Account:add(x) self.balance = (self.balance * 31 + x) % 1000003 end
    for round = 1, 20 do
        for i = 1, n do all[i]:add(all[(i * 7 + round) % n + 1].balance) end
    end
    local sum = 0
    for i = 1, n do sum = sum + all[i].balance end
    return sum
end

local function coroutines(n)
    local function producer(k)
        return coroutine.wrap(function() for i = 1, k do coroutine.yield(i * i % 97) end end)
    end
    local sum = 0
    for i = 1, n do for value in producer(i) do sum = sum + value end end
    return sum
end

print("nbody", nbody(60000))
print("mandelbrot", mandelbrot(160, 200))
print("fannkuch", fannkuch(8))
print("sieve", sieve(300000))
print("strings", strings(30000))
print("spectral", spectral(120))
print("objects", objects(4000))
print("coroutines", coroutines(300))
print("floor", floor(2 ^ 52 + 0.5) % 1000, 7 % -3, -7 % 3, 2 ^ 0.5 == sqrt(2))
