//! An HTTP service: JSON, a POST, a handler that blocks, and a database for each child of a pool.
//!
//! ```text
//! cargo run --release --features service,logging --example http_service -- 127.0.0.1:8080 prefork:4 log
//! curl http://127.0.0.1:8080/notes/7                                                  # 404
//! curl -X POST -H 'Content-Type: application/json' -d '{"text":"hi"}' http://127.0.0.1:8080/notes/7   # {"text":"hi"}
//! curl http://127.0.0.1:8080/slow                                                     # a second later; others don't wait
//! ```
//!
//! Without arguments it listens on 127.0.0.1:8080, in one process, and logs no requests. Ctrl-C ends it.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, io, thread};

use lenore::Kernel;
use lenore::component::Server;
use lenore::component::http::{AccessLog, Cx, HttpError, Json, Request, Result, Service};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Note {
    text: String,
}

/// Stands for a connection to a database. Each process that serves opens its own.
struct Notes(PathBuf);

impl Notes {
    fn open() -> io::Result<Notes> {
        let directory = env::temp_dir().join("lenore-notes");
        fs::create_dir_all(&directory).map(|()| Notes(directory))
    }
}

fn read(cx: &mut Cx<'_, Notes>, request: Request) -> Result<Json<Note>> {
    let path = cx.heap().resource().0.join(request.param::<u32>("id")?.to_string());
    let text = fs::read_to_string(path).map_err(|_| HttpError::new(404, "no such note"))?;
    Ok(Json(Note { text }))
}

fn write(cx: &mut Cx<'_, Notes>, request: Request) -> Result<(u16, Json<Note>)> {
    let note: Note = request.json()?;
    fs::write(cx.heap().resource().0.join(request.param::<u32>("id")?.to_string()), &note.text)?;
    Ok((201, Json(note)))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let _ = lenore::logging::Logger::new().install();
    let args: Vec<String> = env::args().skip(1).collect();
    let service = Service::with(Notes::open)
        .get("/hello", |_, _| "hello\n")
        .get("/notes/{id}", read)
        .post("/notes/{id}", write)
        .get("/slow", |_, _| thread::sleep(Duration::from_secs(1)));
    let service = if args.iter().any(|arg| arg == "log") { service.access_log(AccessLog::Combined) } else { service };
    let address = args.first().map_or("127.0.0.1:8080", String::as_str);
    let processes = args.get(1).map_or("single", String::as_str).parse()?;
    let mut kernel = Kernel::new()?;
    let serving = Server::tcp(address, service).processes(processes).spawn(&mut kernel)?;
    println!("listening on {}, pid {}", serving.local_addr(), std::process::id());
    Ok(kernel.run()?)
}
