//! The interfaces that the guide of the Python SDK prints, word for word, against a service in a process of its own: the
//! service is this test binary once more, which runs [`serve`] alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use trunkline::http::{EnhancedHttpClient, ServiceError};
use trunkline::{Error, service_interface};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    email: String,
    #[serde(default = "yes")]
    active: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CreateUserRequest {
    name: String,
    email: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct UpdateUserRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
}

/// Type-safe user service interface.
#[service_interface("user-service", "/api/v1", server)]
trait UserService {
    /// Get user by ID with automatic type validation.
    #[get("/users/{user_id}")]
    async fn get_user(&self, user_id: u64) -> Result<User, ServiceError>;

    /// Create a new user.
    #[post("/users")]
    async fn create_user(&self, #[body] user_data: CreateUserRequest)
    -> Result<User, ServiceError>;

    /// Update a user.
    #[put("/users/{user_id}")]
    async fn update_user(
        &self,
        user_id: u64,
        #[body] user_data: UpdateUserRequest,
    ) -> Result<User, ServiceError>;

    /// List users with pagination and filtering.
    #[get("/users")]
    async fn list_users(
        &self,
        #[query(default = 20)] limit: Option<u32>,
        #[query(default = true)] active: Option<bool>,
    ) -> Result<Vec<User>, ServiceError>;

    /// Delete a user.
    #[delete("/users/{user_id}")]
    async fn delete_user(&self, user_id: u64) -> Result<(), ServiceError>;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OrderItem {
    product_id: u64,
    quantity: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CreateOrderRequest {
    user_id: u64,
    items: Vec<OrderItem>,
    total: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    user_id: u64,
    items: Vec<OrderItem>,
    total: u64,
    status: String,
}

/// Order service with full resilience patterns.
#[service_interface("order-service", "/api/v1", server)]
trait OrderService {
    /// Create order with circuit breaker and retry protection.
    #[circuit_breaker(failure_threshold = 3, recovery_timeout = 30.0)]
    #[retry(max_attempts = 2, delay = 0.5, backoff = 2.0)]
    #[post("/orders")]
    #[idempotent]
    async fn create_order(
        &self,
        #[body] order_data: CreateOrderRequest,
    ) -> Result<Order, ServiceError>;

    /// Get order with caching.
    #[cached(ttl = 300.0)] // Cache for 5 minutes
    #[get("/orders/{order_id}")]
    async fn get_order(&self, order_id: u64) -> Result<Order, ServiceError>;

    /// Search orders with health monitoring.
    #[health_check(interval = 30.0, timeout = 5.0, failure_threshold = 3)]
    #[get("/orders/search")]
    async fn search_orders(
        &self,
        user_id: Option<u64>,
        status: Option<&str>,
        #[query(default = 20)] limit: Option<u32>,
    ) -> Result<Vec<Order>, ServiceError>;

    /// Update order status with retry logic.
    #[retry(max_attempts = 3, delay = 1.0)]
    #[put("/orders/{order_id}/status")]
    async fn update_order_status(&self, order_id: u64, status: &str)
    -> Result<Order, ServiceError>;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    id: u64,
    category: String,
}

// The guide's ProductService has no line of an interface: neither a base path nor anything else.
#[service_interface("product-service", server)]
trait ProductService {
    #[cached(ttl = 600.0, key = "product:{product_id}", cache_on_error = true)]
    #[get("/products/{product_id}")]
    async fn get_product(&self, product_id: u64) -> Result<Product, ServiceError>;

    #[cached(ttl = 300.0, vary_on = ["category", "limit"])]
    #[get("/products")]
    async fn list_products(
        &self,
        category: &str,
        #[query(default = 20)] limit: Option<u32>,
    ) -> Result<Vec<Product>, ServiceError>;
}

/// What the process serves.
#[derive(Default)]
struct Everything {
    users: Mutex<BTreeMap<u64, User>>,
    orders: Mutex<BTreeMap<u64, Order>>,
    /// How often it was asked for a product.
    asked: AtomicU64,
}

impl UserService for Everything {
    async fn get_user(&self, user_id: u64) -> Result<User, ServiceError> {
        let users = self.users.lock().unwrap();
        let user = users.get(&user_id).cloned();
        user.ok_or_else(|| Error::not_found(format!("no user {user_id}")).into())
    }

    async fn create_user(&self, user_data: CreateUserRequest) -> Result<User, ServiceError> {
        let mut users = self.users.lock().unwrap();
        let CreateUserRequest { name, email } = user_data;
        let id = users.len() as u64 + 1;
        let user = User {
            id,
            name,
            email,
            active: true,
        };
        users.insert(id, user.clone());
        Ok(user)
    }

    async fn update_user(
        &self,
        user_id: u64,
        user_data: UpdateUserRequest,
    ) -> Result<User, ServiceError> {
        let mut users = self.users.lock().unwrap();
        let Some(user) = users.get_mut(&user_id) else {
            return Err(Error::not_found(format!("no user {user_id}")).into());
        };
        user.name = user_data.name.unwrap_or(user.name.clone());
        user.email = user_data.email.unwrap_or(user.email.clone());
        user.active = user_data.active.unwrap_or(user.active);
        Ok(user.clone())
    }

    async fn list_users(
        &self,
        limit: Option<u32>,
        active: Option<bool>,
    ) -> Result<Vec<User>, ServiceError> {
        let users = self.users.lock().unwrap();
        let fitting = users
            .values()
            .filter(|user| active.is_none_or(|active| user.active == active));
        Ok(fitting.take(limit.unwrap() as usize).cloned().collect())
    }

    async fn delete_user(&self, user_id: u64) -> Result<(), ServiceError> {
        self.users.lock().unwrap().remove(&user_id);
        Ok(())
    }
}

impl OrderService for Everything {
    async fn create_order(&self, order_data: CreateOrderRequest) -> Result<Order, ServiceError> {
        let CreateOrderRequest {
            user_id,
            items,
            total,
        } = order_data;
        let mut orders = self.orders.lock().unwrap();
        let id = orders.len() as u64 + 1;
        let status = "new".to_owned();
        let order = Order {
            id,
            user_id,
            items,
            total,
            status,
        };
        orders.insert(id, order.clone());
        Ok(order)
    }

    async fn get_order(&self, order_id: u64) -> Result<Order, ServiceError> {
        let order = self.orders.lock().unwrap().get(&order_id).cloned();
        order.ok_or_else(|| Error::not_found(format!("no order {order_id}")).into())
    }

    async fn search_orders(
        &self,
        user_id: Option<u64>,
        status: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Vec<Order>, ServiceError> {
        let orders = self.orders.lock().unwrap();
        let fitting = orders.values().filter(|order| {
            user_id.is_none_or(|id| order.user_id == id)
                && status.is_none_or(|one| order.status == one)
        });
        Ok(fitting.take(limit.unwrap() as usize).cloned().collect())
    }

    async fn update_order_status(
        &self,
        order_id: u64,
        status: &str,
    ) -> Result<Order, ServiceError> {
        let mut orders = self.orders.lock().unwrap();
        let Some(order) = orders.get_mut(&order_id) else {
            return Err(Error::not_found(format!("no order {order_id}")).into());
        };
        status.clone_into(&mut order.status);
        Ok(order.clone())
    }
}

impl ProductService for Everything {
    async fn get_product(&self, product_id: u64) -> Result<Product, ServiceError> {
        Ok(Product {
            id: product_id,
            category: format!("tea {}", self.asked.fetch_add(1, Ordering::SeqCst)),
        })
    }

    async fn list_products(
        &self,
        category: &str,
        limit: Option<u32>,
    ) -> Result<Vec<Product>, ServiceError> {
        let product = |id| Product {
            id,
            category: category.to_owned(),
        };
        Ok((1..=u64::from(limit.unwrap())).map(product).collect())
    }
}

/// Serves until its standard input ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other process of the tests"]
async fn serve() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = UserServiceServer::router(Everything::default())
        .merge(OrderServiceServer::router(Everything::default()))
        .merge(ProductServiceServer::router(Everything::default()));
    let mut out = std::io::stdout();
    writeln!(out, "\nlistening on {address}").unwrap();
    out.flush().unwrap();
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served.unwrap(),
        read = ended => drop(read.unwrap()),
    }
}

/// The service in a process of its own.
struct Process {
    child: Child,
    url: String,
    /// Open until the process has ended: what it prints must find a reader.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start() -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args([
                "--exact",
                "interface::seeds::serve",
                "--ignored",
                "--nocapture",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(ToOwned::to_owned));
        let url = format!(
            "http://{}",
            address.expect("the process ended before it listened")
        );
        Self {
            child,
            url,
            _output: lines,
        }
    }

    fn client(&self) -> EnhancedHttpClient {
        EnhancedHttpClient::new(&self.url).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn user_service() {
    let process = Process::start();
    let user_service = UserServiceClient::new(process.client());
    for (name, email) in [("Ada", "ada@example.com"), ("Jane Doe", "jane@example.com")] {
        let request = CreateUserRequest {
            name: name.to_owned(),
            email: email.to_owned(),
        };
        assert_eq!(user_service.create_user(request).await.unwrap().name, name);
    }
    let user = user_service.get_user(2).await.unwrap();
    assert_eq!(
        (user.name.as_str(), user.email.as_str(), user.active),
        ("Jane Doe", "jane@example.com", true)
    );
    let change = UpdateUserRequest {
        active: Some(false),
        ..UpdateUserRequest::default()
    };
    assert!(!user_service.update_user(2, change).await.unwrap().active);
    let users = user_service.list_users(Some(50), Some(true)).await.unwrap();
    assert_eq!(users.len(), 1);
    assert_eq!(user_service.list_users(None, None).await.unwrap(), users);
    assert_eq!(
        user_service
            .list_users(None, Some(false))
            .await
            .unwrap()
            .len(),
        1
    );
    user_service.delete_user(1).await.unwrap();
    let error = user_service.get_user(1).await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 404);
    assert!(error.to_string().contains("no user 1"), "{error}");
}

#[tokio::test]
async fn order_service() {
    let process = Process::start();
    let order_service = OrderServiceClient::new(process.client());
    let request = CreateOrderRequest {
        user_id: 123,
        items: vec![OrderItem {
            product_id: 456,
            quantity: 2,
        }],
        total: 2000,
    };
    let order = order_service.create_order(request).await.unwrap();
    assert_eq!(order_service.get_order(order.id).await.unwrap(), order);
    assert_eq!(
        order_service
            .search_orders(Some(123), None, None)
            .await
            .unwrap(),
        std::slice::from_ref(&order)
    );
    assert!(
        order_service
            .search_orders(None, Some("sent"), Some(5))
            .await
            .unwrap()
            .is_empty()
    );
    let sent = order_service
        .update_order_status(order.id, "sent")
        .await
        .unwrap();
    assert_eq!(sent.status, "sent");
    assert_eq!(
        order_service
            .search_orders(None, Some("sent"), Some(5))
            .await
            .unwrap(),
        [sent]
    );
    let error = order_service.get_order(99).await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 404);
}

#[tokio::test]
async fn product_service() {
    let process = Process::start();
    let product_service = ProductServiceClient::new(process.client());
    let category = async || product_service.get_product(123).await.unwrap().category;
    assert_eq!(product_service.get_product(123).await.unwrap().id, 123);
    assert_eq!(category().await, "tea 0");
    let fresh = product_service.get_product(123).force_refresh();
    assert_eq!(fresh.await.unwrap().category, "tea 1");
    assert_eq!(category().await, "tea 1");
    assert_eq!(product_service.clear_cache("product:123").await.unwrap(), 1);
    assert_eq!(category().await, "tea 2");
    let other = product_service.get_product(124).await.unwrap();
    assert_eq!(other.category, "tea 3");
    let products = product_service
        .list_products("green tea", None)
        .await
        .unwrap();
    assert_eq!(
        (products.len(), products[0].category.as_str()),
        (20, "green tea")
    );
    assert_eq!(
        product_service
            .list_products("x", Some(2))
            .await
            .unwrap()
            .len(),
        2
    );
}
