//! The receiver of spans as a program.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;

/// Takes spans by OTLP and prints each as a JSON line
#[derive(Parser)]
#[command(name = "otlp")]
struct Args {
    /// Address and port for gRPC
    #[arg(long)]
    grpc: SocketAddr,
    /// Address and port for HTTP
    #[arg(long)]
    http: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    lb_tests::otlp::serve(args.grpc, args.http).await
}
