//! The examples of the guide are compiled like those of the API.

macro_rules! page {
    ($name:ident, $path:literal) => {
        #[doc = include_str!(concat!("../../../docs/guide/", $path))]
        mod $name {}
    };
}

page!(calling, "calling.md");
page!(http, "http.md");
page!(serving, "serving.md");
page!(discovery, "discovery.md");
page!(gateway, "gateway.md");
page!(operating, "operating.md");
page!(messaging, "messaging.md");
page!(recipes, "recipes.md");
page!(events, "events.md");
page!(readme, "../../README.md");
