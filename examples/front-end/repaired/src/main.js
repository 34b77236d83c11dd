const orders = await (await fetch(`${window.env.API_URL}/orders`)).json();
document.querySelector("#orders").append(...orders.map((order) => Object.assign(document.createElement("li"), { textContent: order.name })));
