// The package as the server has it, beside the tests.
export * from "../girih/index.js";
