// Prints the methods of the official client's resources with the names of their parameters, from the package's types:
// {"chat.completions.create": ["messages", …], …}. The arguments are names of resources.
import { createRequire } from "node:module";
import ts from "typescript";

const file = createRequire(import.meta.url).resolve("openai").replace(/\.m?js$/, ".d.ts");
const program = ts.createProgram([file], { skipLibCheck: true, module: ts.ModuleKind.NodeNext });
const checker = program.getTypeChecker();
const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)));
const named = exported.find((symbol) => symbol.name === "OpenAI");
const client = named.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(named) : named;

const typeOf = (symbol) => checker.getTypeOfSymbol(symbol);

// All names that one of the alternatives of a type has; a type of the language, such as a string, has none. The options
// of a request, which some methods take in the same argument, are none of its parameters.
function names(type) {
  if (type.isUnion()) return type.types.flatMap(names);
  if (type.flags & ts.TypeFlags.TypeParameter) return names(checker.getBaseConstraintOfType(type) ?? type);
  if (!(type.flags & (ts.TypeFlags.Object | ts.TypeFlags.Intersection))) return [];
  return checker.getPropertiesOfType(type).filter(isOwn).map((property) => property.name);
}

function isOwn(property) {
  const files = (property.declarations ?? []).map((declaration) => declaration.getSourceFile().fileName);
  return files.some((name) => !name.includes("request-options"));
}

const found = {};
function describe(path, resource) {
  for (const property of checker.getPropertiesOfType(resource)) {
    const name = `${path}.${property.name}`;
    if (property.name.startsWith("_")) continue;
    const type = typeOf(property);
    if (property.flags & ts.SymbolFlags.Method) {
      const parameters = new Set();
      for (const signature of type.getCallSignatures()) {
        for (const parameter of signature.getParameters()) {
          if (["body", "query", "params"].includes(parameter.name)) names(typeOf(parameter)).forEach((one) => parameters.add(one));
          else if (parameter.name !== "options") parameters.add(parameter.name);
        }
      }
      found[name] = [...parameters].sort();
    } else if (type.getProperty("_client")) describe(name, type);
  }
}

for (const path of process.argv.slice(2)) {
  let resource = checker.getDeclaredTypeOfSymbol(client);
  for (const part of path.split(".")) resource = typeOf(resource.getProperty(part));
  describe(path, resource);
}
console.log(JSON.stringify(found));
