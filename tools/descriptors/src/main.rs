//! Makes `src/envoy_json/descriptors.binpb.gz`: the descriptors of all of Envoy's v3 messages, without comments and
//! without custom options (the rules of protoc-gen-validate), which is what reading and writing JSON needs.
//!
//! The arguments are the file to write, and the roots of the proto files (protoc's `-I`). The same input makes the same
//! bytes.
//!
//! Relative names (`common.dns.v3.Lookup`) are made absolute before protox sees them: it takes the innermost package that
//! has a `common`, also if what follows is not there, where protoc looks only among what the file imports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use flate2::{Compression, GzBuilder};
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use protox::{
    Compiler,
    file::{ChainFileResolver, DescriptorSetFileResolver, FileResolver, GoogleFileResolver, IncludeFileResolver},
};

/// Everything below these; the rest comes with what they import.
const ROOTS: [&str; 3] = ["envoy", "udpa", "xds"];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [output, includes @ ..] = arguments.as_slice() else { bail!("usage: convoy-descriptors OUTPUT ROOT...") };
    let wanted = proto_files(includes)?;
    let mut all = parse(includes, wanted.clone())?;
    let types: BTreeSet<String> = all.values().flat_map(types_of).collect();
    all.values_mut().for_each(|file| qualify_file(file, &types));
    let all = compile(all, &wanted)?;
    let count = all.len();
    let bytes = FileDescriptorSet { file: in_order(all) }.encode_to_vec();
    let packed = compress(&bytes)?;
    fs::write(output, &packed).with_context(|| format!("{} cannot be written", output.display()))?;
    println!("{count} files, {} bytes, {} compressed", bytes.len(), packed.len());
    Ok(())
}

fn subdirectories(of: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(of).with_context(|| format!("{} cannot be read", of.display()))?;
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}

/// The proto files below the roots, as imports name them.
fn proto_files(includes: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for include in includes {
        let mut waiting: Vec<PathBuf> =
            ROOTS.iter().map(|root| include.join(root)).filter(|dir| dir.is_dir()).collect();
        while let Some(directory) = waiting.pop() {
            waiting.extend(subdirectories(&directory)?);
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "proto") {
                    found.push(path.strip_prefix(include)?.to_str().context("a path is not UTF-8")?.to_owned());
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The files with all that they import, by name.
fn parse(includes: &[PathBuf], mut waiting: Vec<String>) -> anyhow::Result<BTreeMap<String, FileDescriptorProto>> {
    let mut resolver = ChainFileResolver::new();
    includes.iter().for_each(|include| resolver.add(IncludeFileResolver::new(include.clone())));
    resolver.add(GoogleFileResolver::new());
    let mut parsed = BTreeMap::new();
    while let Some(name) = waiting.pop() {
        if parsed.contains_key(&name) {
            continue;
        }
        let file = resolver.open_file(&name).with_context(|| format!("{name} cannot be read"))?;
        let file = file.file_descriptor_proto().clone();
        waiting.extend(file.dependency.iter().cloned());
        parsed.insert(name, file);
    }
    Ok(parsed)
}

/// The full names of a file's messages and enums.
fn types_of(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let mut found: Vec<String> = file.enum_type.iter().map(|of| format!("{package}.{}", of.name())).collect();
    let mut waiting: Vec<(String, &DescriptorProto)> =
        file.message_type.iter().map(|of| (format!("{package}.{}", of.name()), of)).collect();
    while let Some((name, message)) = waiting.pop() {
        found.extend(message.enum_type.iter().map(|of| format!("{name}.{}", of.name())));
        waiting.extend(message.nested_type.iter().map(|of| (format!("{name}.{}", of.name()), of)));
        found.push(name);
    }
    found
}

fn qualify_file(file: &mut FileDescriptorProto, types: &BTreeSet<String>) {
    let package = file.package().to_owned();
    for message in &mut file.message_type {
        qualify(message, &package, types);
    }
}

fn qualify(message: &mut DescriptorProto, outer: &str, types: &BTreeSet<String>) {
    let scope = format!("{outer}.{}", message.name());
    for field in &mut message.field {
        let Some(name) = field.type_name.as_deref().filter(|name| !name.starts_with('.')) else { continue };
        let full = |scope: &str| Some(format!("{scope}.{name}")).filter(|full| types.contains(full));
        let scopes =
            std::iter::successors(Some(scope.as_str()), |scope| scope.rsplit_once('.').map(|(outer, _)| outer));
        let found = scopes.into_iter().find_map(full).or_else(|| types.get(name).cloned());
        if let Some(found) = found {
            field.type_name = Some(format!(".{found}"));
        }
    }
    for nested in &mut message.nested_type {
        qualify(nested, &scope, types);
    }
}

fn compile(
    parsed: BTreeMap<String, FileDescriptorProto>,
    wanted: &[String],
) -> anyhow::Result<BTreeMap<String, FileDescriptorProto>> {
    let parsed = FileDescriptorSet { file: parsed.into_values().collect() };
    let mut compiler = Compiler::with_file_resolver(DescriptorSetFileResolver::new(parsed));
    compiler.include_imports(true).include_source_info(false);
    for file in wanted {
        compiler.open_file(file).with_context(|| format!("{file} does not compile"))?;
    }
    Ok(compiler.file_descriptor_set().file.into_iter().map(|file| (file.name().to_owned(), file)).collect())
}

/// Each file after those that it imports.
fn in_order(mut files: BTreeMap<String, FileDescriptorProto>) -> Vec<FileDescriptorProto> {
    let mut ordered = Vec::with_capacity(files.len());
    while !files.is_empty() {
        let is_ready = |file: &FileDescriptorProto| file.dependency.iter().all(|name| !files.contains_key(name));
        let ready: Vec<String> = files.values().filter(|file| is_ready(file)).map(|file| file.name().into()).collect();
        // Imports have no cycles, so there is always one; without, a loop would have no end.
        assert!(!ready.is_empty(), "imports have a cycle");
        ordered.extend(ready.iter().filter_map(|name| files.remove(name)));
    }
    ordered
}

fn compress(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    // No time and no name of a machine in the header: the same input makes the same file.
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
