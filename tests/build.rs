//! Compiles the client's side of the snapshots service, from the daemon's own definition of it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = "../tools/layerd/proto";
    println!("cargo:rerun-if-changed={dir}");
    let descriptors = protox::compile(["snapshots.proto"], [dir])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
