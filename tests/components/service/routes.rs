//! From methods and paths to handlers.

use lenore::component::http::{HttpError, Request, Service};
use lenore::filter::http::Response;

use super::Host;

fn show(request: &Request) -> String {
    format!("{} {}", request.method(), request.path())
}

fn service() -> Service {
    Service::new()
        .get("/", |_, _| "front")
        .get("/users/{id}", |_, request| request.param::<u32>("id").map(|id| format!("user {id}")))
        .delete("/users/{id}", |_, _| ())
        .post("/users", |_, request| (201, show(&request)))
        .get("/users/all", |_, _| "all")
        .get("/named/{name}/x", |_, request| request.param::<String>("name"))
        .get("/deep/{*path}", |_, request| request.param::<String>("path"))
        .get("/café", |_, _| "coffee")
        .prefix("/api", |_, request| {
            format!("{} [{}]", show(&request), request.param::<String>("rest").unwrap_or("none".into()))
        })
}

#[test]
fn routes_lead_by_method_and_path() {
    let mut host = Host::new(service());
    for (method, path, status, body) in [
        ("GET", "/", 200, "front"),
        ("GET", "/?a=b", 200, "front"),
        ("GET", "http://a.test/users/7", 200, "user 7"),
        ("GET", "/users/7", 200, "user 7"),
        ("GET", "/users/all", 200, "all"),
        ("POST", "/users", 201, "POST /users"),
        ("DELETE", "/users/7", 204, ""),
        ("GET", "/caf%C3%A9", 200, "coffee"),
        ("GET", "/%75sers/%37", 200, "user 7"),
        ("GET", "/named/a%2Fb%20%252F/x", 200, "a/b %2F"),
        ("GET", "/deep/a/b/c", 200, "a/b/c"),
        ("PUT", "/api", 200, "PUT /api [none]"),
        ("GET", "/api/", 200, "GET /api/ [none]"),
        ("BREW", "/api/a/b", 200, "BREW /api/a/b [a/b]"),
    ] {
        let page = host.ask_with(method, path, "", "");
        assert_eq!((page.status, page.body.as_str()), (status, body), "{method} {path}");
    }
}

#[test]
fn what_has_no_handler_is_refused_with_the_right_status() {
    let mut host = Host::new(service());
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/users/7/", 404),
        ("GET", "/apix", 404),
        ("GET", "/deep", 404),
        ("POST", "/", 405),
        ("get", "/", 405),
        ("PUT", "/users/7", 405),
        ("GET", "/users/seven", 400),
        ("GET", "/%zz", 400),
        ("GET", "/%ff", 400),
        ("OPTIONS", "*", 204),
        ("CONNECT", "a.test:80", 501),
    ] {
        assert_eq!(host.ask_with(method, path, "", "").status, status, "{method} {path}");
    }
    assert_eq!(host.ask_with("PUT", "/users/7", "", "").header("Allow"), Some("GET, HEAD, DELETE"));
}

#[test]
fn parameter_that_does_not_parse_is_refused_with_the_reason() {
    let page = Host::new(service()).get("/users/seven");
    assert!(
        page.body.contains("the part &quot;id&quot; of the path is wrong: invalid digit found in string"),
        "{page:?}"
    );
}

fn shaped() -> Service {
    service()
        .post("/notes", |_, request| request.json::<Vec<u32>>().map(|_| ()))
        .get("/panics", |_, _| -> &'static str { panic!("oh") })
        .get("/own", |_, _| Response::new(404).body("own"))
        .max_body(10)
        .errors(|status, detail| match status {
            410 => panic!("oh"),
            _ => Response::new(status).header("Content-Type", "text/x").body(format!("{status}: {detail}")),
        })
        .get("/gone", |_, _| lenore::component::http::Result::<()>::Err(HttpError::new(410, "it was here")))
}

#[test]
fn errors_shapes_what_the_service_itself_refuses() {
    let mut host = Host::new(shaped());
    let json = "Content-Type: application/json\r\n";
    for (method, path, fields, body, answer) in [
        ("GET", "/nothing", "", "", "404: "),
        ("GET", "/%zz", "", "", "400: malformed path"),
        ("GET", "/users/seven", "", "", "400: the part \"id\" of the path is wrong: "),
        ("POST", "/notes", json, "{", "400: the JSON is wrong: "),
        ("POST", "/notes", "", "[]", "415: the body should be JSON"),
        ("POST", "/notes", json, "[1, 2, 3, 4, 5]", "413: "),
        ("GET", "/panics", "", "", "500: the server has failed"),
        ("PUT", "/users/7", "", "", "405: the method is not for this path"),
    ] {
        let page = host.ask_with(method, path, fields, body);
        assert_eq!(page.header("Content-Type"), Some("text/x"), "{page:?}");
        assert!(page.body.starts_with(answer) && answer.starts_with(&page.status.to_string()), "{page:?}");
        assert_eq!(page.header("Connection"), Some("close"), "{page:?}");
    }
    assert_eq!(host.ask_with("PUT", "/users/7", "", "").header("Allow"), Some("GET, HEAD, DELETE"));
    assert!(host.send("nonsense\r\n\r\n").ends_with("\r\n\r\n400: malformed request line"));
}

#[test]
fn errors_leaves_responses_of_handlers_alone() {
    assert_eq!(Host::new(shaped()).get("/own").body, "own");
}

#[test]
fn error_whose_shape_panics_is_a_page() {
    let page = Host::new(shaped()).get("/gone");
    assert_eq!((page.status, page.header("Content-Type")), (410, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("it was here"), "{page:?}");
}

#[test]
fn fallback_gets_what_has_no_route() {
    let mut host = Host::new(service().fallback(|_, request| (404, show(&request))));
    let page = host.get("/nothing/here");
    assert_eq!((page.status, page.body.as_str()), (404, "GET /nothing/here"));
    // There is something at this path.
    assert_eq!(host.ask_with("POST", "/", "", "").status, 405);
}

#[test]
fn head_is_answered_by_the_handler_for_get_without_the_body() {
    let mut host = Host::new(service());
    let text = host.send("HEAD /users/7 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let whole = host.send("GET /users/7 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_eq!(format!("{text}user 7"), whole);
    let own = Service::new().get("/", |_, _| "get").route("HEAD", "/", |_, _| (202, ""));
    assert_eq!(Host::new(own).ask_with("HEAD", "/", "", "").status, 202);
}

#[test]
#[should_panic(expected = "the route \"/{name}\" can't be added")]
fn route_that_cannot_be_told_from_another_panics() {
    let _ = Service::new().get("/{id}", |_, _| "").get("/{name}", |_, _| "");
}
