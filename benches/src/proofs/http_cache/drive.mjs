// Runs the suite's own definitions with the suite's own client, and prints what came of each.
// Arguments: the folder of the package, the base URL of what is tested.
import { pathToFileURL } from 'node:url'

const [folder, base] = process.argv.slice(2)
const load = path => import(pathToFileURL(`${folder}/${path}`))
const { default: suites } = await load('tests/index.mjs')
const { runTests, getResults } = await load('client/runner.mjs')
for (const suite of suites) {
  // What it asks of caches in browsers holds for any cache of one client.
  for (const test of suite.tests) delete test.browser_only
}
// With any other mode Node adds words of its own to Cache-Control and Pragma, which the suite does not mean to send.
const plain = { redirect: 'manual', cache: 'force-cache' }
await runTests(suites, (url, init) => fetch(url, { ...init, ...plain }), false, base)
const results = getResults()
const cases = suites.flatMap(suite => suite.tests.map(test => ({
  id: test.id,
  suite: suite.id,
  kind: test.kind ?? 'required',
  depends_on: test.depends_on ?? [],
  passed: results[test.id] === true,
  seen: results[test.id] === true ? '' : results[test.id].join(': ')
})))
console.log(JSON.stringify(cases))
process.exit(0)
