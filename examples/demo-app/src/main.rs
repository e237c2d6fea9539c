//! A small HTTP program to run on an orchestrator.
//!
//! It has no dependencies but a signal handler, so that it can be linked statically into an image
//! of a few megabytes. Configuration comes from the environment:
//!
//! - `POD_IP`, `PORT`: where to listen (default: everywhere, `8080`). A pod with a network of its
//!   own is listened in everywhere, so that a port-forward, which comes from inside, finds it;
//!   one whose address is a loopback one shares the host's network, and gets no more than that;
//! - `POD_NAME`, `GREETING`, `VERSION`: what to answer;
//! - `DATA_DIR`: where the number of visits is kept (default: nowhere, it starts at zero).
//!
//! `/` greets, `/visits` counts, `/healthz` and `/readyz` are for probes, `/allocate?mib=N` uses
//! memory until something gives, `/exit?code=N` ends the process. On SIGTERM it stops being ready,
//! finishes what it has begun and ends.

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

const REQUEST_BYTES_MAX: u64 = 16 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

struct App {
    name: String,
    greeting: String,
    version: String,
    visits_file: Option<PathBuf>,
    visits: Mutex<u64>,
    draining: AtomicBool,
    open: AtomicUsize,
}

fn main() -> ExitCode {
    let var = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let ip = env::var("POD_IP").ok().filter(|ip| ip.starts_with("127."));
    let address = format!("{}:{}", ip.as_deref().unwrap_or("0.0.0.0"), var("PORT", "8080"));
    let visits_file = env::var_os("DATA_DIR").map(|dir| PathBuf::from(dir).join("visits"));
    let visits = visits_file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    let app = Arc::new(App {
        name: var("POD_NAME", "nobody"),
        greeting: var("GREETING", "hello"),
        version: var("VERSION", "v1"),
        visits: Mutex::new(visits.and_then(|text| text.trim().parse().ok()).unwrap_or(0)),
        visits_file,
        draining: AtomicBool::new(false),
        open: AtomicUsize::new(0),
    });
    let listener = match TcpListener::bind(&address) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("demo-app: cannot listen on {address}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("demo-app {} listens on {address}", app.version);
    let acceptor = app.clone();
    thread::spawn(move || accept(&listener, &acceptor));
    let mut signals = match Signals::new([SIGTERM, SIGINT]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("demo-app: cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(signal) = signals.forever().next() {
        println!("demo-app: signal {signal}, draining");
    }
    app.draining.store(true, Ordering::SeqCst);
    while app.open.load(Ordering::SeqCst) > 0 {
        thread::park_timeout(Duration::from_millis(10));
    }
    println!("demo-app: done");
    ExitCode::SUCCESS
}

fn accept(listener: &TcpListener, app: &Arc<App>) {
    for stream in listener.incoming().flatten() {
        let app = app.clone();
        app.open.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || {
            if let Err(error) = serve(&stream, &app)
                && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
            {
                eprintln!("demo-app: {error}");
            }
            app.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Answers one request and closes, so that a drained process holds no connection.
fn serve(mut stream: &TcpStream, app: &App) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or("/").to_owned();
    // The headers are read so that closing does not reset the connection.
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && header.trim() != "" {
        header.clear();
    }
    let (status, body) = answer(&target, app);
    println!("{target} {status}");
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

fn answer(target: &str, app: &App) -> (&'static str, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number = || query.split_once('=').and_then(|(_, value)| value.parse::<usize>().ok());
    match path {
        "/" => ("200 OK", format!("{} from {} {}\n", app.greeting, app.name, app.version)),
        "/healthz" => ("200 OK", "ok\n".to_owned()),
        "/readyz" if app.draining.load(Ordering::SeqCst) => {
            ("503 Service Unavailable", "draining\n".to_owned())
        }
        "/readyz" => ("200 OK", "ready\n".to_owned()),
        "/visits" => visit(app),
        "/allocate" => ("200 OK", format!("{}\n", allocate(number().unwrap_or(64)))),
        "/exit" => std::process::exit(number().and_then(|n| i32::try_from(n).ok()).unwrap_or(1)),
        _ => ("404 Not Found", "not found\n".to_owned()),
    }
}

fn visit(app: &App) -> (&'static str, String) {
    let Ok(mut visits) = app.visits.lock() else {
        return ("500 Internal Server Error", "the counter is broken\n".to_owned());
    };
    // Another replica may have counted in the same file.
    if let Some(file) = &app.visits_file
        && let Some(stored) = fs::read_to_string(file).ok().and_then(|t| t.trim().parse().ok())
    {
        *visits = stored;
    }
    *visits += 1;
    if let Some(file) = &app.visits_file
        && let Err(error) = fs::write(file, visits.to_string())
    {
        return (
            "500 Internal Server Error",
            format!("cannot write {}: {error}\n", file.display()),
        );
    }
    ("200 OK", format!("{visits}\n"))
}

fn allocate(mebibytes: usize) -> usize {
    let mut held = Vec::new();
    for step in 0..mebibytes {
        // Every page is written, or the kernel would not count it.
        held.push(vec![step as u8; 1 << 20]);
    }
    held.iter().map(|block| block.len()).sum()
}
