// node run.mjs MODULES [--mdns]: one Chromium with one page. Commands come as JSON lines on stdin ({"do": "call", …}),
// answers ({"answer": …} or {"error": …}) and events ({"event": …}) go as JSON lines to stdout. Ends with its stdin.
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const modules = process.argv[2];
const hideAddresses = process.argv.includes('--mdns');
const require = createRequire(path.join(modules, 'package.json'));
const { chromium } = require('playwright-core');
const esbuild = require('esbuild');
const say = (value) => process.stdout.write(JSON.stringify(value) + '\n');

const bundle = await esbuild.build({
    entryPoints: [fileURLToPath(new URL('page.js', import.meta.url))],
    nodePaths: [path.join(modules, 'node_modules')],
    bundle: true, write: false, platform: 'browser', format: 'iife', logLevel: 'error',
    define: { global: 'window', 'process.env.NODE_ENV': '"production"' },
});
const server = createServer((request, response) => {
    const script = request.url === '/page.js';
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
    response.end(script ? bundle.outputFiles[0].text : '<!doctype html><script src=/page.js></script>');
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const args = [
    '--no-sandbox', // root has none; the page is our own
    '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--no-first-run', '--autoplay-policy=no-user-gesture-required',
    '--allow-loopback-in-peer-connection', // without it WebRTC ignores the only network of the laboratory
];
if (!hideAddresses) args.push('--disable-features=WebRtcHideLocalIpsWithMdns');
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args,
});
const page = await browser.newPage();
page.on('pageerror', (error) => say({ event: 'pageerror', text: error.message }));
await page.exposeFunction('report', (line) => process.stdout.write(line + '\n'));
await page.goto(`http://127.0.0.1:${server.address().port}/`);
say({ event: 'ready', version: browser.version() });

for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    try {
        const answer = await page.evaluate((it) => window.peer[it.do](it), command);
        say({ answer: answer ?? null });
    } catch (error) {
        say({ error: error.message });
    }
}
await browser.close();
server.close();
