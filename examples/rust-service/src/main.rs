//! Converts temperatures: `GET /celsius/21.5` answers `{"celsius":21.5,"fahrenheit":70.7}`.

use std::env;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn convert(Path(celsius): Path<f64>) -> Json<Value> {
    Json(json!({ "celsius": celsius, "fahrenheit": celsius * 9.0 / 5.0 + 32.0 }))
}

async fn serve(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/celsius/{celsius}", get(convert));
    axum::serve(TcpListener::bind(address).await?, routes).await?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some("--version") {
        println!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let port = env::var("PORT")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve((Ipv4Addr::LOCALHOST, port).into()))
}
