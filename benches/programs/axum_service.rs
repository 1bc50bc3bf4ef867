//! The peer of the example `http_service`: its routes, by axum, on one thread of tokio. Not the pool, and not the log.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Deserialize, Serialize)]
struct Note {
    text: String,
}

type Notes = State<Arc<PathBuf>>;

async fn read(State(notes): Notes, Path(id): Path<u32>) -> Result<Json<Note>, StatusCode> {
    let text = fs::read_to_string(notes.join(id.to_string())).map_err(|_| StatusCode::NOT_FOUND)?;
    Ok(Json(Note { text }))
}

async fn write(
    State(notes): Notes,
    Path(id): Path<u32>,
    Json(note): Json<Note>,
) -> Result<(StatusCode, Json<Note>), StatusCode> {
    fs::write(notes.join(id.to_string()), &note.text).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((StatusCode::CREATED, Json(note)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let notes = env::temp_dir().join("lenore-notes");
    fs::create_dir_all(&notes)?;
    let app = Router::new()
        .route("/hello", get(|| async { "hello\n" }))
        .route("/notes/{id}", get(read).post(write))
        .route("/slow", get(|| tokio::time::sleep(Duration::from_secs(1))))
        .with_state(Arc::new(notes));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    Ok(axum::serve(listener, app).await?)
}
