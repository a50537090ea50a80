// Declarations of the package beside which the page is served: `./girih/index.js` of the site is `../ts/index.ts` here.
export * from "../../ts/index.js";
