// Runs cases one after the other and tells of each on a line of its own, as JSON.

const cases = [];

export function test(name, act) {
  cases.push({ name, act });
}

export async function runAll() {
  for (const { name, act } of cases) {
    let error = null;
    try {
      await within(act(), 30_000);
    } catch (raised) {
      error = `${raised?.stack ?? raised}${raised?.body ? ` ${JSON.stringify(raised.body)}` : ""}`;
    }
    console.log(JSON.stringify({ name, error }));
  }
  process.exit(0);
}

function within(promise, milliseconds) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
