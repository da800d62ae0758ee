//! Generates the records of the durable stores from `proto/convoy/storage`, what replicas say to each other from
//! `proto/convoy/peers`, and a client of etcd from `proto/etcd`, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/convoy/storage");
    println!("cargo:rerun-if-changed=proto/convoy/peers");
    println!("cargo:rerun-if-changed=proto/etcd");
    let descriptors =
        protox::compile(["convoy/storage/v1/records.proto", "convoy/storage/v1/backup.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .extern_path(".convoy.v1", "::convoy_client::proto")
        .compile_fds(descriptors)?;
    let peers = protox::compile(["convoy/peers/v1/peers.proto"], ["proto"])?;
    tonic_prost_build::configure().extern_path(".convoy.v1", "::convoy_client::proto").compile_fds(peers)?;
    let etcd = protox::compile(["rpc.proto"], ["proto/etcd"])?;
    // Kept values are read where they came in, and a transaction that is sent again is not copied.
    tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(etcd)?;
    Ok(())
}
