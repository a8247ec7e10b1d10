// Has the name of the SDK lead to its stand-in.
import module from "node:module";

const standin = new URL("./standin.js", import.meta.url).href;

export async function registerHooks() {
  const hook = `export async function resolve(name, context, next) {
    return name === "@zohocrm/nodejs-sdk-8.0" ? { url: ${JSON.stringify(standin)}, shortCircuit: true } : next(name, context);
  }`;
  module.register("data:text/javascript," + encodeURIComponent(hook));
}
