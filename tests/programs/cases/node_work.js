// Compute for V8: enough rounds for its compilers, results printed. With "short", fewer.
'use strict';
const rounds = process.argv[2] === 'short' ? 1 : 8;

// SHA-256 in plain JavaScript, checked against the library's.
const K = [];
(() => {
    for (let n = 2, found = 0; found < 64; n++) {
        let prime = true;
        for (let d = 2; d * d <= n; d++) if (n % d === 0) prime = false;
        if (prime) { K.push(Math.floor((Math.cbrt(n) % 1) * 2 ** 32) | 0); found++; }
    }
})();
function sha256(bytes) {
    const h = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    const padded = new Uint8Array((bytes.length + 72) & ~63), w = new Int32Array(64);
    padded.set(bytes);
    padded[bytes.length] = 0x80;
    new DataView(padded.buffer).setUint32(padded.length - 4, bytes.length * 8);
    const view = new DataView(padded.buffer), rot = (x, n) => (x >>> n) | (x << (32 - n));
    for (let at = 0; at < padded.length; at += 64) {
        for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
        for (let i = 16; i < 64; i++) {
            const a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (rot(a, 7) ^ rot(a, 18) ^ (a >>> 3)) + w[i - 7] + (rot(b, 17) ^ rot(b, 19) ^ (b >>> 10));
        }
        let [a, b, c, d, e, f, g, k] = h;
        for (let i = 0; i < 64; i++) {
            const t = (k + (rot(e, 6) ^ rot(e, 11) ^ rot(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
            const u = ((rot(a, 2) ^ rot(a, 13) ^ rot(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
            k = g; g = f; f = e; e = (d + t) | 0; d = c; c = b; b = a; a = (t + u) | 0;
        }
        [a, b, c, d, e, f, g, k].forEach((x, i) => { h[i] = (h[i] + x) | 0; });
    }
    return h.map(x => (x >>> 0).toString(16).padStart(8, '0')).join('');
}
const bytes = new Uint8Array(100000).map((_, i) => (i * i + (i >> 3)) & 255);
for (let r = 0; r < rounds; r++) {
    const ours = sha256(bytes), theirs = require('crypto').createHash('sha256').update(bytes).digest('hex');
    if (r === 0) console.log('sha256', ours, ours === theirs);
    else if (ours !== theirs) console.log('sha256 differs in round', r, ours);
}

function floats(n) {
    let x = 0.5, sum = 0;
    for (let i = 1; i < n; i++) {
        x = 3.9 * x * (1 - x);
        sum += Math.sqrt(i) * x - Math.trunc(x * 100) / 7 + Math.fround(i / 3);
    }
    return sum;
}
console.log('floats', floats(300000 * rounds));

function integers(n) {
    let a = 1, b = 2, c = 3;
    for (let i = 0; i < n; i++) {
        a = Math.imul(a, 1664525) + 1013904223 | 0;
        b ^= a >>> (i & 31);
        c = (c + Math.clz32(b) + (a % 1000)) | 0;
    }
    return [a, b, c].join(' ');
}
console.log('integers', integers(1000000 * rounds));

class Shape { area() { return 1; } }
class Square extends Shape { constructor(s) { super(); this.s = s; } area() { return this.s * this.s; } }
class Circle extends Shape { constructor(r) { super(); this.r = r; } area() { return this.r * 3; } }
function objects(n) {
    const kinds = [() => new Shape(), i => new Square(i % 9), i => new Circle(i % 5), i => ({ area: () => i % 3 })];
    let sum = 0;
    for (let i = 0; i < n; i++) sum += kinds[i % (i < n / 2 ? 2 : 4)](i).area(); // the second half undoes what was assumed
    return sum;
}
console.log('objects', objects(200000 * rounds));

function strings(n) {
    const count = new Map();
    let text = '';
    for (let i = 0; i < n; i++) text += String.fromCharCode(97 + (i * 7919) % 26) + (i % 5 ? '' : ' ');
    for (const word of text.split(' ')) count.set(word, (count.get(word) || 0) + 1);
    return [...count].sort((x, y) => y[1] - x[1] || (x[0] < y[0] ? -1 : 1)).slice(0, 3).join('|') + ' ' +
        text.replace(/([a-m])([n-z])/g, '$2$1').length + ' ' + (text.match(/[aeiou][^aeiou ]{2,}/g) || []).length;
}
console.log('strings', strings(60000 * rounds));

function big(n) {
    let x = 1n;
    for (let i = 1n; i <= n; i++) x = x * (i * i + 1n) % (2n ** 521n - 1n);
    return x.toString(36);
}
console.log('big', big(BigInt(2000 * rounds)));

function arrays(n) {
    const f = new Float64Array(n), u = new Uint16Array(n), list = [];
    for (let i = 0; i < n; i++) {
        f[i] = Math.sin(i) * 0;
        u[i] = i * 40503;
        list.push((i * 2654435761) % 65537);
    }
    list.sort((a, b) => a - b);
    return u.reduce((a, b) => (a * 31 + b) % 1000003, 7) + ' ' + list[n >> 1] + ' ' + f.every(x => x === 0);
}
console.log('arrays', arrays(40000 * rounds));

let caught = 0;
for (let i = 0; i < 20000 * rounds; i++) {
    try {
        if (i % 3 === 0) throw new RangeError(String(i));
        if (i % 7 === 0) null.x;
    } catch (e) { caught += e instanceof RangeError ? 1 : 2; }
}
console.log('caught', caught);

// Code that is made and dropped, and made again at what may be the same place.
let made = 0;
for (let i = 0; i < 300 * rounds; i++) made = (made + new Function('x', `let s = ${i}; for (let j = 0; j < 50; j++) s = (s * 31 + x + j) % 10007; return s;`)(i)) % 1000003;
console.log('made', made);

// WebAssembly: (func (param i32) (result i32)): the sum of i * i below the parameter, by a loop; and a load that traps.
const section = (id, ...content) => [id, content.length, ...content], body = (...code) => [code.length, ...code];
const loop = body(1, 2, 127, 2, 64, 3, 64, 32, 1, 32, 0, 78, 13, 1, 32, 2, 32, 1, 32, 1, 108, 106, 33, 2, 32, 1, 65, 1, 106, 33, 1, 12, 0, 11, 11, 32, 2, 11);
const load = body(0, 32, 0, 40, 2, 0, 11);
const wasm = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, ...section(1, 1, 96, 1, 127, 1, 127), ...section(3, 2, 0, 0), ...section(5, 1, 0, 1),
    ...section(7, 2, 3, 115, 117, 109, 0, 0, 1, 108, 0, 1), ...section(10, 2, ...loop, ...load)]);
const { sum, l } = new WebAssembly.Instance(new WebAssembly.Module(wasm)).exports;
let trapped = 0;
for (let i = 0; i < 200 * rounds; i++) {
    try { l(65536 * (i & 1)); } catch (e) { trapped += e instanceof WebAssembly.RuntimeError; }
}
console.log('wasm', sum(1000000 * rounds), trapped);

if (rounds > 1) {
    const { Worker } = require('worker_threads');
    const shared = new Int32Array(new SharedArrayBuffer(8));
    const source = 'const a = require("worker_threads").workerData; for (let i = 0; i < 200000; i++) Atomics.add(a, 0, 1);';
    let left = 3;
    for (let i = 0; i < 3; i++)
        new Worker(source, { eval: true, workerData: shared }).on('exit', () => { if (!--left) console.log('workers', shared[0]); });
}
