//! Generates the records of the durable stores from `proto/convoy/storage`, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/convoy/storage");
    let descriptors = protox::compile(["convoy/storage/v1/records.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .extern_path(".convoy.v1", "::convoy_client::proto")
        .compile_fds(descriptors)?;
    Ok(())
}
