const orders = await (await fetch(`${import.meta.env.VITE_API_URL}/orders`)).json();
document.querySelector("#orders").append(...orders.map((order) => Object.assign(document.createElement("li"), { textContent: order.name })));
